"""`stillreel preview OUT`: one self-contained page that shows what was made."""

from animate.preview.command import run

__all__ = ["run"]
