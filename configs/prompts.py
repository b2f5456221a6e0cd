"""What is said of a class, in one way or in several: CLIP's published ensembles for videos (Radford et al., 2021; prompts.md)."""

from __future__ import annotations

_MEDIA = ("photo", "video", "example", "demonstration")
_WAYS = ("using ", "doing ", "during ", "performing ", "practicing ")

ENSEMBLES: dict[str, tuple[str, ...]] = {
    # Of Kinetics-700: each medium alone, and of a person.
    "clip28": tuple(f"a {medium} of {what}{{}}." for medium in _MEDIA
                    for what in ("", "a person ", *(f"a person {way}" for way in _WAYS))),
    # Of UCF101: each medium of a person, and of the person.
    "clip48": tuple(f"a {medium} of {who} person {way}{{}}." for way in ("", *_WAYS) for who in ("a", "the")
                    for medium in _MEDIA),
}  # fmt: skip


def templates_of(prompt: str) -> tuple[str, ...]:
    """The templates of a setting: an ensemble's by its name, or several with | between them. ValueError for one without {}."""
    templates = ENSEMBLES.get(prompt) or tuple(one.strip() for one in prompt.split("|"))
    for template in templates:
        if "{}" not in template:
            raise ValueError(
                f"prompt={template!r} has no {{}} for the name of the class; nor is it {', '.join(ENSEMBLES)}"
            )
    return templates
