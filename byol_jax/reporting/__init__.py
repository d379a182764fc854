"""Pictures and tables of what a run left in its workdir."""
