"""Training: teachers, held-out logits, distilled students. Needs torch."""
