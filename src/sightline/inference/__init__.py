"""How a model runs: its fastest exact form on this machine, and the precision of its passes."""
