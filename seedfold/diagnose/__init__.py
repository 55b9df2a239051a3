"""What a scored population says about the base's neighbourhood: does its structure reproduce, how dense are gains."""
