"""For a Kamailio that loads app_python3 and runs no Python for its calls."""


class Nothing:
    def child_init(self, rank):
        return 1


def mod_init():
    return Nothing()
