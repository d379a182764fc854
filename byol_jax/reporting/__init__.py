"""Pictures and tables of the results in a workdir."""
