"""Random views: their specification, and their operations on accelerators."""
