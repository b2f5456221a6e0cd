"""Which files of a user's folder are a benchmark's annotations: by what the user says, by usual names, by content.

A benchmark asks its Finder for one Role after another. What was chosen, and why, is kept for the report. Where several files
fit and differ, nobody guesses: a RequestError lists them and the setting that decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from stillreel.configs import DataError, RequestError
from stillreel.configs.benchmark import BenchmarkSettings
from stillreel.finetune.benchmarks.files import AnnotationFile, Inventory
from stillreel.finetune.benchmarks.records import Dialect, Table, read_table

_MOST_LOOKED_INTO = 64  # files whose names tell nothing


@dataclass(frozen=True)
class Role:
    """A part that a file plays: the setting that names it, and how to know it.

    `names` are globs, lower case, the likeliest first. A file of another name is recognized by its content if it reads in one
    of the dialects, its first id is `like`, and it has one of `sizes` records (any number when there are none).
    With `many`, files that match one of the globs of a name (separated by blanks) complete each other.
    """

    setting: str
    what: str
    names: tuple[str, ...]
    dialects: tuple[Dialect, ...]
    like: str = ""
    sizes: tuple[int, ...] = ()
    many: bool = False

    def fits(self, table: Table) -> bool:
        """Whether the content alone says that a file plays this part."""
        if not table.records or (self.sizes and len(table.records) not in self.sizes):
            return False
        return bool(self.like) and re.fullmatch(self.like, next(iter(table.records))) is not None


@dataclass
class Finder:
    """Finds and reads the files of a benchmark. `chosen` and `aside` are sentences for the report."""

    name: str
    settings: BenchmarkSettings
    inventory: Inventory
    known: tuple[Dialect, ...] = ()
    chosen: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    spare: dict[str, list[AnnotationFile]] = field(default_factory=dict)  # by setting: files that were not chosen
    _taken: set[AnnotationFile] = field(default_factory=set)

    def table(self, role: Role, *, needed: bool) -> Table | None:
        """The one file of a role. None when there is none and it is not needed."""
        tables = self.tables(role, needed=needed)
        return tables[0] if tables else None

    def tables(self, role: Role, *, needed: bool) -> list[Table]:
        """The files of a role; more than one only if it is of many. RequestError when it is needed and there is none."""
        asked = getattr(self.settings.files, role.setting, "")
        if asked:
            found = [self._read(self._asked(role, one.strip()), role) for one in asked.split(",")]
            if len(found) > 1 and not role.many:
                raise RequestError(f"files.{role.setting}={asked}: expected one file: {role.what}")
            given = {table.file.path for table in found}
            self.spare[role.setting] = [
                file for files in self._ranked(role) for file in files if file.path not in given
            ]
            return [self._choose(role, table, f"files.{role.setting}") for table in found]
        found = self._by_name(role) or self._by_content(role)
        if not found and needed:
            raise RequestError(
                f"{self.name}: {role.what}: none found in {self.inventory.root} ({len(self.inventory.annotations):,} "
                f"annotation files looked at by name). Usual names: {', '.join(role.names)}. "
                f"Name it with files.{role.setting}="
            )
        return found

    def _asked(self, role: Role, asked: str) -> AnnotationFile:
        path, _, member = asked.partition("::")
        for base in (self.inventory.root / path, Path(path).expanduser()):
            if base.is_file():
                return AnnotationFile(base, member)
        raise RequestError(
            f"files.{role.setting}={asked}: no such file, neither in {self.inventory.root} nor from here"
        )

    def _read(self, file: AnnotationFile, role: Role) -> Table:
        try:
            return read_table(file, role.dialects, self.known)
        except DataError as error:
            raise DataError(f"{error}. It was to be {self.name}'s {role.setting}: {role.what}") from None

    def _choose(self, role: Role, table: Table, why: str) -> Table:
        self._taken.add(table.file)
        name = self.inventory.relative(table.file)
        self.chosen.append(f"{role.setting}: {name} ({why}): {table.dialect.owner}, {table.size()}")
        return table

    def _ranked(self, role: Role) -> list[list[AnnotationFile]]:
        """Files that have one of the role's usual names, by name."""
        return [
            [
                file
                for file in self.inventory.annotations
                if any(fnmatchcase(file.name.lower(), one) for one in globs.split())
            ]
            for globs in role.names
        ]

    def _by_name(self, role: Role) -> list[Table]:
        ranked = self._ranked(role)
        best = next((files for files in ranked if files), [])
        if not best:
            return []
        others = dict.fromkeys(file for files in ranked for file in files if file not in best)
        self.spare[role.setting] = list(others)
        for file in others:
            self.aside.append(
                f"{role.setting}: {self.inventory.relative(file)} is not used: {best[0].name} comes first"
            )
            self._taken.add(file)
        self._taken.update(best)
        groups: dict[str, list[AnnotationFile]] = {}
        for file in best:
            groups.setdefault(file.name.lower() if role.many else "", []).append(file)
        return [self._choose(role, self._only(role, group), "by its name") for group in groups.values()]

    def _only(self, role: Role, files: Sequence[AnnotationFile]) -> Table:
        """The one of several files, which must all say the same."""
        tables = [self._read(file, role) for file in files]
        for table in tables[1:]:
            if not _say_the_same(tables[0], table):
                raise RequestError(self._ambiguous(role, tables))
            self.aside.append(f"{role.setting}: {self.inventory.relative(table.file)} says the same")
        return tables[0]

    def _ambiguous(self, role: Role, tables: Sequence[Table]) -> str:
        listed = "\n".join(f"  {self.inventory.relative(table.file)}: {table.size()}" for table in tables)
        return (
            f"{self.name}: {len(tables)} files may be its {role.setting} ({role.what}), and they differ:\n{listed}\n"
            + (f"Choose with files.{role.setting}=")
        )

    def _by_content(self, role: Role) -> list[Table]:
        if not role.like:
            return []
        unnamed = [
            file
            for file in self.inventory.annotations
            if file not in self._taken and not file.name.lower().endswith(".parquet")
        ]
        if len(unnamed) > _MOST_LOOKED_INTO:
            self.aside.append(
                f"{role.setting}: {len(unnamed):,} files of other names are too many to look into; "
                f"name it with files.{role.setting}="
            )
            return []
        fitting = []
        for file in unnamed:
            try:
                table = read_table(file, role.dialects)
            except (DataError, OSError):
                continue  # a file that no name claims may be anything
            if role.fits(table):
                fitting.append(table)
        if len(fitting) > 1 and not role.many:
            if not all(_say_the_same(fitting[0], table) for table in fitting[1:]):
                raise RequestError(self._ambiguous(role, fitting))
            fitting = fitting[:1]
        return [self._choose(role, table, "by its content") for table in fitting]


def _say_the_same(one: Table, other: Table) -> bool:
    def said(table: Table) -> dict[str, tuple[object, ...]]:
        return {name: (record.captions, record.label, record.split) for name, record in table.records.items()}

    return said(one) == said(other)
