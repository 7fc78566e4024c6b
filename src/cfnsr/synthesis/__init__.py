"""A corpus of drawn actors who speak, for the demo and the tests: no person was filmed for it."""

from cfnsr.synthesis.corpus import Part, is_masked, plan, synthesize

__all__ = ["Part", "is_masked", "plan", "synthesize"]
