"""Why a model says what it says: explanation methods by name, pictures of them, and a test whether they are true."""
