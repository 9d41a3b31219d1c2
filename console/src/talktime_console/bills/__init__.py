"""Bills of providers as they come: OpenAI's Costs and Usage API pages and downloads, Google's billing export."""
