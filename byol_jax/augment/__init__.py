"""Random views: what may be done to a crop, and how an accelerator does it."""
