"""Everything that talks to the world; each adapter fills a port and knows no other adapter."""
