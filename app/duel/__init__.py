"""The duel: two clips on one timeline and the questions about them, as one custom Gradio component."""
