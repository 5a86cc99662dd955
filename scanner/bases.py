"""The base of a fine-tune: found by its card or given, pinned to a commit, its headers read once."""

from collections.abc import Callable
from dataclasses import replace

from scanner.failures import failure_of
from scanner.planning import plan_repository, read_header, read_settings, read_shards
from scanner.sources.base import Source
from scanner.sources.targets import sibling
from scanner.weights.matrices import plan_matrices
from scanner.weights.pairing import Base
from scanner.weights.selection import choose_files
from schemas.config import ScanConfig, WorkLimits
from schemas.errors import ScanError, SourceError
from schemas.refs import MatrixRef, Repository, WorkUnit
from schemas.results import FailureKind, Stage
from schemas.rows import Failure
from schemas.work import RepoPlan, Target

_KEPT = 8
"""Planned bases kept, the latest used: fine-tunes of one base tend to be scanned one after the other."""


class Bases:
    """Pairs repositories with their bases, opening sources through `open_source`.

    `given` is the base of every repository; without it the card's `base_model` is (the first, of a merge's
    several), if stage `base` says so: on the same hub, at the commit that its main branch has at that moment,
    or beside a local model.
    """

    def __init__(
        self, open_source: Callable[[Target], Source], config: ScanConfig, given: Target | None = None
    ) -> None:
        self._open = open_source
        self._config = config
        self._given = given
        self._kept: dict[Target, Base] = {}

    def plan(
        self,
        source: Source,
        target: Target,
        repository: Repository,
        limits: WorkLimits | None = None,
        origin: str = "local",
    ) -> RepoPlan:
        """Plan a repository with every row paired.

        A base of the card that can't be had is one failure of stage compare; a given one raises ScanError,
        as does the repository itself, and any error that another try may mend.
        """
        base: Base | None = None
        failures: tuple[Failure, ...] = ()
        try:
            base = self._base(target, repository)
        except ScanError as error:
            if error.retryable or self._given:
                raise
            about = ScanError(error.kind, f"base: {error.message}", http_status=error.http_status)
            ref = repository.ref
            failures = (failure_of(about, Stage.COMPARE, ref.repo_id, ref.revision),)
        plan = plan_repository(source, repository, self._config, limits, origin, base)
        return replace(plan, failures=(*plan.failures, *failures))

    def source(self, target: Target, unit: WorkUnit) -> Source | None:
        """Where the partners of a unit's rows are read; None where there are none."""
        partner = next((row.partner for row in unit.matrices if row.partner), None)
        if partner is None:
            return None
        where = self._given or _named(target, partner.tensor.file.repo.repo_id)
        assert where is not None, "what was planned beside the target is still looked for there"
        return self._open(where)

    def _base(self, target: Target, repository: Repository) -> Base | None:
        where = self._given or self._of_card(target, repository)
        if where is None:
            return None
        base = self._kept.pop(where, None) or self._planned(where)
        self._kept[where] = base
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return None if base.ref == repository.ref and not self._given else base

    def _of_card(self, target: Target, repository: Repository) -> Target | None:
        """The base that the card names; None for an adapter, for none, and for the repository itself."""
        name = repository.facts.base_model
        if self._config.stages.base == "off" or name is None or name == repository.ref.repo_id:
            return None
        if all(group.adapter_config for group in choose_files(repository.files).groups):
            return None
        where = _named(target, name)
        if where is None:
            raise SourceError(
                FailureKind.REPO_MISSING_OR_PRIVATE,
                f"the card names {name}, which is not beside {target}: put it there as owner/name, or use "
                "`hubspectra compare`",
            )
        return where

    def _planned(self, where: Target) -> Base:
        source = self._open(where)
        return plan_base(source, source.repository(where.repo_id, where.revision), self._config)


def plan_base(source: Source, repository: Repository, config: ScanConfig) -> Base:
    """The matrices of a pinned base, from the headers of the files that a scan would read.

    Raises ScanError where it has none to offer: no safetensors, or a broken header or index.
    """
    rows: list[MatrixRef] = []
    for group in choose_files(repository.files).groups:
        files = read_shards(source, group, repository).files
        tensors = [tensor for file in files for tensor in read_header(source, file)]
        settings = read_settings(source, group.config)
        rows += plan_matrices(tensors, config.matrices, group.component, len(rows), settings=settings)
    return Base(repository.ref, tuple(rows))


def _named(target: Target, repo_id: str) -> Target | None:
    return Target(repo_id=repo_id) if target.root is None else sibling(target, repo_id)
