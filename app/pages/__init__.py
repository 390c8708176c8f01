"""Pages in Gradio."""
