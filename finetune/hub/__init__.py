"""Models and data sets of ours as repositories of the Hugging Face hub: their cards, and how the hub is asked."""
