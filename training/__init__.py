"""Everything that trains, evaluates, explains offline, exports and publishes a version."""
