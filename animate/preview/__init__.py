"""preview: one self-contained page that shows what was made: cards of clips (card, strip), and the page around them."""
