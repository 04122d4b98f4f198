"""From a journalled frame and the state to records and the next state. Pure."""
