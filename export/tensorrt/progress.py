"""TensorRT's own progress reports as bars."""

from __future__ import annotations

from typing import Any

from rich.progress import Progress, TaskID


def monitor(api: Any, progress: Progress) -> Any:
    """An `IProgressMonitor` that draws each phase of a build as a bar; set its `cancelled` to stop the build."""

    class Bars(api.IProgressMonitor):  # type: ignore[misc]
        """Called by the library, from the thread that builds."""

        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._tasks: dict[str, TaskID] = {}
            self._depth: dict[str | None, int] = {None: 0}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins."""
            depth = self._depth[phase_name] = self._depth.get(parent_phase, 0) + 1
            self._tasks[phase_name] = progress.add_task("  " * (depth - 1) + phase_name, total=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step of it is done; False stops the build."""
            progress.update(self._tasks[phase_name], completed=step + 1)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            """The phase is over."""
            progress.remove_task(self._tasks.pop(phase_name))

    return Bars()
