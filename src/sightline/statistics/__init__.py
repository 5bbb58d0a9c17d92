"""How sure a value is: intervals over seeds and images, paired tests, and tests of ranks."""
