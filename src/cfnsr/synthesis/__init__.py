"""A corpus of drawn actors who speak, for the demo and the tests: no person was filmed for it.

`acting` says what emotions look and sound like; `cast` makes the actors; `performance` moves them; `face`,
`shapes`, `head`, `features` and `portrait` draw; `speech` gives a voice; `tracks` follows the face; `corpus`
writes it all.
"""

from cfnsr.synthesis.corpus import Part, is_masked, plan, synthesize

__all__ = ["Part", "is_masked", "plan", "synthesize"]
