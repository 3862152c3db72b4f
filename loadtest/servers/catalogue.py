"""The servers that can be compared, each with the best setting that its documentation offers without a GPU.

To add a server, add an entry here, a script in loadtest/peers, and its packages in loadtest/peers/requirements. All
servers resize with the repository's code. They differ in the server, in the engine if one is named, and in the decoder
of BentoML's typed API, which hands over pictures that Pillow has decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.client.encoding import Wire
from loadtest.reporting.cli import CompareError
from loadtest.servers.peer import V2_CLASS, V2_INDEX, Peer

OURS = "halftone"
BASELINES = ("fastapi", "fastapi-pool")
SAME_ENGINE = ("fastapi-engine", "fastapi-engine-pool")
LIMITS = ("limit", "limit-batch")
OTHER_DECODERS = ("fastapi-opencv", "fastapi-pillow")

_ONNX_RUNTIME = "ONNX Runtime FP32"
_BENTOML = ("{bin}/bentoml", "serve", "--host", "127.0.0.1", "--port", "{port}")
_UVICORN = ("{python}", "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--no-access-log")
_FASTAPI = (*_UVICORN, "loadtest.peers.fastapi_app:app")
_WORKERS = ("--workers", "{cores}")
_ALL_CORES = {"PEER_THREADS": "{cores}"}
_OUR_ENGINE = {"PEER_VARIANT": "{variant}"}
_BATCHING = {"off": "1", "on": "8", "auto": "0"}
# The back end of nvidia-pytriton is linked against the shared library of the system's interpreter.
_SYSTEM_PYTHON = "/usr/bin/python3.11"


def _script(module: str) -> tuple[str, ...]:
    return ("{python}", "-m", f"loadtest.peers.{module}", "{port}")


def ours(name: str = OURS, title: str = "Halftone", engine: str = "{variant}", **settings: str) -> Peer:
    """Return our service with these HALFTONE_* settings."""
    return Peer(name=name, title=title, engine=engine, command=_BENTOML, settings=settings, ours=True)


def _decoding_with(library: str) -> Peer:
    """Return the fastest FastAPI for large photographs, with a decoder that decodes them whole."""
    return Peer(
        name=f"fastapi-{library.lower()}",
        title=f"FastAPI, {library} decodes, pool of a thread a core",
        engine="{variant}",
        requirements="fastapi",
        command=_FASTAPI,
        settings=_ALL_CORES | _OUR_ENGINE | {"PEER_DECODER": library.lower()},
        named=True,
    )


def _limit(name: str, title: str, batch: int, engine: str, settings: dict[str, str]) -> Peer:
    command = ("{python}", "-m", "loadtest.peers.limit", "--batch", str(batch))
    return Peer(name=name, title=title, engine=engine, command=command, settings=_ALL_CORES | settings, loop=True)


PEERS = (
    # Pinned to the engine in its row.
    ours(HALFTONE_VARIANT="{variant}"),
    ours("halftone-workers", "Halftone, a worker a core", HALFTONE_VARIANT="{variant}", HALFTONE_WORKERS="{cores}"),
    Peer(
        name="fastapi",
        title="FastAPI, a worker a core",
        engine=_ONNX_RUNTIME,
        requirements="fastapi",
        command=(*_FASTAPI, *_WORKERS),
    ),
    Peer(
        name="fastapi-pool",
        title="FastAPI, pool of a thread a core",
        engine=_ONNX_RUNTIME,
        requirements="fastapi",
        command=_FASTAPI,
        settings=_ALL_CORES,
    ),
    Peer(
        name="fastapi-engine",
        title="FastAPI, a worker a core",
        engine="{variant}",
        requirements="fastapi",
        command=(*_FASTAPI, *_WORKERS),
        settings=_OUR_ENGINE,
    ),
    Peer(
        name="fastapi-engine-pool",
        title="FastAPI, pool of a thread a core",
        engine="{variant}",
        requirements="fastapi",
        command=_FASTAPI,
        settings=_ALL_CORES | _OUR_ENGINE,
    ),
    Peer(
        name="bentoml",
        title="BentoML, typed API (Pillow decodes), a thread a core",
        engine=_ONNX_RUNTIME,
        command=(*_BENTOML, "loadtest.peers.bentoml_typed:Typed"),
        wire=Wire.IMAGE_FIELD,
        settings=_ALL_CORES,
    ),
    Peer(
        name="bentoml-batchable",
        title="BentoML, batchable (8), all cores for a batch",
        engine=_ONNX_RUNTIME,
        command=(*_BENTOML, "loadtest.peers.bentoml_batchable:Batchable"),
        wire=Wire.IMAGES_FIELD,
        settings=_ALL_CORES,
    ),
    Peer(
        name="bentoml-batchable-workers",
        title="BentoML, batchable (8), a worker a core",
        engine=_ONNX_RUNTIME,
        command=(*_BENTOML, "loadtest.peers.bentoml_batchable:Batchable"),
        wire=Wire.IMAGES_FIELD,
        settings={"PEER_WORKERS": "{cores}"},
    ),
    Peer(
        name="litserve",
        title="LitServe, batch 8, a worker a core",
        engine=_ONNX_RUNTIME,
        requirements="litserve",
        command=_script("litserve_app"),
        wire=Wire.REQUEST_FIELD,
        settings=_ALL_CORES,
    ),
    Peer(
        name="mlserver",
        title="MLServer, batch 8, a worker a core",
        engine=_ONNX_RUNTIME,
        requirements="mlserver",
        command=_script("mlserver_app"),
        path="/v2/models/peer/infer",
        wire=Wire.V2_BASE64,
        answer=V2_INDEX,
        settings=_ALL_CORES,
    ),
    Peer(
        name="ray",
        title="Ray Serve, batch 8, a replica a core",
        engine=_ONNX_RUNTIME,
        requirements="ray",
        command=_script("ray_app"),
        settings=_ALL_CORES | {"RAY_USAGE_STATS_ENABLED": "0"},
    ),
    Peer(
        name="triton",
        title="Triton core (pytriton), batch 8, an instance a core",
        engine=_ONNX_RUNTIME,
        requirements="triton",
        python=_SYSTEM_PYTHON,
        command=_script("triton_app"),
        path="/v2/models/peer/infer",
        wire=Wire.V2_BINARY,
        answer=V2_INDEX,
        settings=_ALL_CORES,
    ),
    Peer(
        name="halftone-v2",
        title="Halftone, 224 x 224 pixels over the Open Inference Protocol",
        engine="{variant}",
        command=_BENTOML,
        path="/v2/models/{model}/infer",
        wire=Wire.V2_PIXELS,
        answer=V2_CLASS,
        settings={"HALFTONE_VARIANT": "{variant}"},
        ours=True,
        named=True,
    ),
    _decoding_with("OpenCV"),
    _decoding_with("Pillow"),
    _limit("limit", "no HTTP: decode + model", 1, "{variant}", _OUR_ENGINE),
    _limit("limit-batch", "no HTTP: decode + model, batch 8", 8, "{variant}", _OUR_ENGINE),
    _limit("limit-onnxruntime", "no HTTP: decode + model", 1, _ONNX_RUNTIME, {}),
)

NOOP_PEERS = (
    Peer(
        name="halftone-noop",
        title="Halftone's HTTP side and metrics (no request log, queue or threads)",
        engine="none",
        ours=True,
        command=(*_BENTOML, "loadtest.peers.halftone_noop:Noop"),
    ),
    Peer(
        name="halftone-noop-full",
        title="Halftone's HTTP side, metrics, request log, queue and threads",
        engine="none",
        ours=True,
        command=(*_BENTOML, "loadtest.peers.halftone_noop_full:Noop"),
        settings=_ALL_CORES,
    ),
    Peer(
        name="fastapi-noop",
        title="FastAPI, one worker",
        engine="none",
        requirements="fastapi",
        command=(*_UVICORN, "loadtest.peers.fastapi_noop:app"),
    ),
)

BARE = Peer(name="bare", title="a server that does nothing", engine="none", command=_script("bare_socket"))


def chosen(names: str) -> list[Peer]:
    """Return the peers of a comma-separated list; empty: all except those that must be named.

    Raises:
        CompareError: there is no such peer, or a peer is named twice.
    """
    known = {peer.name: peer for peer in PEERS}
    usual = [name for name, peer in known.items() if not peer.named]
    wanted = [name.strip() for name in names.split(",") if name.strip()] or usual
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise CompareError(f"--peers: there is no peer {unknown[0]!r}: choose from {', '.join(known)}")
    if len(set(wanted)) < len(wanted):
        raise CompareError("--peers: a peer is named twice: name each once")
    return [known[name] for name in wanted]


def batching_baselines(name: str) -> list[str]:
    """Return the baselines of a row of `batching_peers`: batching off and on, for the same variant."""
    variant = name.rpartition("-")[0]
    return [f"{variant}-off", f"{variant}-on"]


def batching_peers(variants: Sequence[str]) -> list[Peer]:
    """Return our service with batching off, on and automatic, for each variant."""
    return [
        ours(
            f"{variant}-{batching}",
            f"Halftone, batching {batching}",
            variant,
            HALFTONE_VARIANT=variant,
            HALFTONE_BATCH=batch,
        )
        for variant in variants
        for batching, batch in _BATCHING.items()
    ]
