"""View models and renderers shared by the terminal, the page and the report. They import only the model."""
