"""How all pages look in Gradio."""

import gradio as gr

SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")
THEME = gr.themes.Default(
    primary_hue="indigo",
    font=SYSTEM_FONTS,  # the semi-bold file of Gradio's own font holds few letters: headings were of two fonts
    font_mono=MONO_FONTS,
).set(
    body_text_color_subdued="#566175",  # Gradio's own greys have too little contrast
    body_text_color_subdued_dark="#a7b1c4",
    block_info_text_color="#566175",
    block_info_text_color_dark="#a7b1c4",
)
