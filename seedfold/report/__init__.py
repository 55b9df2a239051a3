"""What a study found, told three ways from one record: terminal lines, figures, and a page that needs no network."""
