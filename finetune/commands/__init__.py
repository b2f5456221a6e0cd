"""commands: `stillreel finetune`, `evaluate`, `index`, `search`, `serve`, `report`, `import-checkpoint`, `export` and `demo`."""
