"""TripoSR: one photo -> a triplane radiance field -> a textured mesh."""
