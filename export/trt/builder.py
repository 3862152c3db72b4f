"""Build a plan from an ONNX graph with either edition of TensorRT.

The network is strongly typed: its precision is that of the graph. Bars show the progress that TensorRT reports.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.progress import Progress, TaskID

from export.cuda.device import gpu
from export.trt.histogram import Histogram, check_precision, precision_histogram
from export.trt.library import Library, known_capabilities
from export.trt.profile import Profile
from models.common.errors import HalftoneError

TURING = "7.5"
"""Not a default target: a plan that also runs on Turing is over a third larger."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Result of a build."""

    data: bytes
    """The serialised engine."""

    compute_capabilities: tuple[str, ...]
    """The GPUs that the plan runs on."""

    histogram: Histogram
    """Number formats of the network that the plan was built from."""

    seconds: float
    """Duration of the build, including parsing."""


def targets(library: Library, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the compute capabilities to build for, such as ("8.6", "8.9").

    Args:
        library: TensorRT-RTX builds for any RTX GPU, TensorRT only for the GPU of this machine.
        wanted: requested by the user; empty for all that TensorRT-RTX knows except Turing, or for the present GPU.

    Raises:
        HalftoneError: the library can't build for a requested GPU on this machine.
    """
    if library.name == "tensorrt":
        present = gpu().compute_capability
        if set(wanted) - {present}:
            raise HalftoneError(
                f"TensorRT builds only for the GPU of this machine (compute capability {present}), not for "
                f"{', '.join(wanted)}: build on a machine with that GPU, omit --compute-capability, or use --runtime "
                "tensorrt_rtx"
            )
        return (present,)
    known = known_capabilities(library)
    if unknown := [each for each in wanted if each not in known]:
        raise HalftoneError(
            f"{library.name} {library.version} can't build for compute capability {', '.join(unknown)}: "
            f"choose from {', '.join(known)}"
        )
    return tuple(each for each in known if (each in wanted if wanted else each != TURING))


def build(
    library: Library,
    graph: bytes,
    *,
    name: str,
    precision: str,
    profile: Profile,
    capabilities: tuple[str, ...],
    progress: Progress,
) -> Plan:
    """Build a plan.

    Args:
        library: the edition of TensorRT.
        graph: an ONNX model with the graph contract of `models.graph`.
        name: of the graph, for messages.
        precision: `fp16` or `fp32`; the graph must already have it.
        profile: batch sizes.
        capabilities: from `targets`.
        progress: shows the progress of the build.

    Raises:
        HalftoneError: the graph can't be parsed or built, or has another precision.
    """
    start = time.perf_counter()
    builder = library.api.Builder(library.logger)
    network = _parse(library, builder, graph, name)
    histogram = precision_histogram(network)
    check_precision(histogram, precision, name)
    config = _config(library, builder, network, profile, capabilities)
    plan = _serialise(library, builder, network, config, progress)
    if plan is None:
        raise HalftoneError(f"{library.name} {library.version} can't build {name}: {library.last_errors()}")
    return Plan(
        data=bytes(memoryview(plan)),
        compute_capabilities=capabilities,
        histogram=histogram,
        seconds=round(time.perf_counter() - start, 2),
    )


def _parse(library: Library, builder: Any, graph: bytes, name: str) -> Any:
    library.logger.errors.clear()
    strongly_typed = library.api.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(strongly_typed))
    parser = library.api.OnnxParser(network, library.logger)
    # An empty file is a valid ONNX model without a network.
    if not parser.parse(graph) or not network.num_inputs or not network.num_outputs:
        errors = "; ".join(_described(parser.get_error(index)) for index in range(parser.num_errors))
        raise HalftoneError(
            f"{library.name} {library.version} can't read {name}: {errors or 'it contains no network'}; "
            "export it again with `python -m export.onnx`"
        )
    return network


def _described(error: Any) -> str:
    words = (error.node_operator(), error.node_name(), *error.desc().split())
    return " ".join(word for word in words if word)


def _config(library: Library, builder: Any, network: Any, profile: Profile, capabilities: tuple[str, ...]) -> Any:
    config = builder.create_builder_config()
    source = network.get_input(0)
    image = tuple(source.shape)[1:]
    shapes = builder.create_optimization_profile()
    shapes.set_shape(source.name, *((size, *image) for size in (profile.minimum, profile.optimum, profile.maximum)))
    config.add_optimization_profile(shapes)
    if library.name == "tensorrt_rtx":
        # Set the number first: otherwise the library ignores the targets and only returns False.
        config.num_compute_capabilities = len(capabilities)
        for index, each in enumerate(capabilities):
            target = getattr(library.api.ComputeCapability, f"SM{each.replace('.', '')}")
            if not config.set_compute_capability(target, index):
                raise HalftoneError(f"{library.name} {library.version} rejects compute capability {each}")
    return config


def _serialise(library: Library, builder: Any, network: Any, config: Any, progress: Progress) -> Any:
    bars = config.progress_monitor = monitor(library.api, progress)
    # In another thread: in this one, an interrupt would be handled only when the library calls back into Python.
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(builder.build_serialized_network, network, config)
        try:
            return task.result()
        except BaseException:
            bars.cancelled = True
            raise


def monitor(api: Any, progress: Progress) -> Any:
    """Create an `IProgressMonitor` that shows each phase of a build as a bar; set its `cancelled` to stop the build."""

    class Bars(api.IProgressMonitor):  # type: ignore[misc]
        """Progress bars; the library calls the methods from the thread that builds."""

        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._tasks: dict[str, TaskID] = {}
            self._depth: dict[str | None, int] = {None: 0}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Add a bar for a phase."""
            depth = self._depth[phase_name] = self._depth.get(parent_phase, 0) + 1
            self._tasks[phase_name] = progress.add_task("  " * (depth - 1) + phase_name, total=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Advance the phase's bar; return False to stop the build."""
            progress.update(self._tasks[phase_name], completed=step + 1)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            """Remove the phase's bar."""
            progress.remove_task(self._tasks.pop(phase_name))

    return Bars()
