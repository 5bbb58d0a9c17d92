"""Explainers that attribute a score to pixels: gradients, backward rules, perturbations, Shapley and Owen values."""
