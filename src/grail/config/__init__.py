"""Every setting of a run and an audit: names, limits, defaults, files."""
