"""From the predictions of a cross-validation to its figures and its report."""
