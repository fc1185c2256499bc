"""Field types and checks that several protocols share."""
