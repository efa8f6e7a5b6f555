"""Figures: each program runs ours and its peer side by side and prints one JSON object a line.

The fields: name, ours, peer, unit, ratio (above 1: ours is better).
"""
