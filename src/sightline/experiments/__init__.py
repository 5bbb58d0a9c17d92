"""Studies that train: tables of trained runs from steps and outputs, learning from few labels."""
