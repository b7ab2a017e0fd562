"""Adversarial robustness evaluation for models that solve."""
