"""The same workers on many machines, by dask.distributed: a task is a crew of one for a few seconds.

cdna has to be installed where dask's workers run, in the same version. A thread of theirs is one job.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from itertools import count
from typing import Any

from cdna.base.closing import Closing
from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.fuzz.campaign import Breach, Tally
from cdna.fuzz.crew import Crew, Slice
from cdna.fuzz.plan import FuzzPlan

TASK = 5.0  # seconds
CONNECT = 10.0  # seconds

Told = dict[str, Any]


def task(plan: str, worker: int, seconds: float) -> Told:
    """Runs where dask wants it: {"slices": [...]}, also {"breach": ...} or {"error": ...}."""
    slices: list[Slice] = []
    told: Told = {}
    try:
        with Crew(replace(FuzzPlan.from_json(plan), jobs=1), seconds, first=worker) as crew:
            while crew.working:
                slices += crew.poll(0.25)
    except Breach as breach:
        told["breach"] = {"kind": breach.kind, "text": breach.text, "case": breach.case}
    except CdnaError as error:
        told["error"] = str(error)
    told["slices"] = [asdict(one) for one in slices]
    return told


class Cluster(Closing):
    """As `Crew`, with as many jobs as the workers of the scheduler at `address` have threads.

    ResourceError: nobody is there, or dask is not installed.
    """

    def __init__(self, plan: FuzzPlan, seconds: float, address: str) -> None:
        try:
            from distributed import Client, as_completed
        except ImportError:
            raise ResourceError(
                "--dask: dask.distributed is not installed; pip install 'cdna[dask]'"
            ) from None
        self._plan = plan
        self._until = time.monotonic() + seconds
        try:
            self._client = Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ResourceError(f"--dask {address}: no scheduler there ({reason})") from None
        try:
            self._client.wait_for_workers(1, timeout=CONNECT)
        except TimeoutError:
            self._client.close()
            advice = "start some with dask worker"
            raise ResourceError(f"--dask {address}: the scheduler has no workers; {advice}") from None
        self.jobs = sum(self._client.nthreads().values())
        self._numbers = count()
        self._done = as_completed(loop=self._client.loop)
        for _ in range(self.jobs):
            self._submit()

    def _submit(self) -> None:
        left = min(TASK, self._until - time.monotonic())
        if left > 0:
            number = next(self._numbers)
            self._done.add(self._client.submit(task, self._plan.to_json(), number, left, pure=False))

    @property
    def working(self) -> bool:
        return not self._done.is_empty()

    def poll(self, timeout: float) -> list[Slice]:
        until, slices = time.monotonic() + timeout, []
        while not self._done.has_ready() and time.monotonic() < until:
            time.sleep(0.01)
        while self._done.has_ready():
            future = next(self._done)
            if future.status != "finished":
                raise ResourceError(f"--dask: a task ended as {future.status}: {future.exception()}")
            told = future.result()
            slices += [Slice(one["campaign"], Tally.of(one["tally"])) for one in told["slices"]]
            self._submit()
            if "breach" in told:
                raise Breach(**told["breach"])
            if "error" in told:
                raise ConfigError(told["error"])
        return slices

    def stop(self) -> list[Slice]:
        """What runs is left to itself: it ends within TASK seconds."""
        return []

    def close(self) -> None:
        self._done.clear()
        self._client.close()
