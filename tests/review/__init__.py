"""Faults that a review found, each with the sentence that it broke."""
