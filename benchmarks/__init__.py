"""Benchmarks: what cfnsr does beside the field's usual scripts and beside what the machine can do at best."""
