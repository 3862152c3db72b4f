"""One file a runtime, discovered by name and imported on demand (`export.variants`)."""
