"""Jobs for now and then: replay of dead letters, removal of old runs."""
