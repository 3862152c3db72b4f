"""One file a runtime; found by name and imported only when asked for (`export.variants`)."""
