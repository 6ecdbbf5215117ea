class Unprotected:
    settings = {"protection": "none", "anti_spoof": False}

    def attack(self, guest, random):  # sends another guest's page as a frame
        guest.post(0, [(4096 * guest.foreign_pages()[-2], 1514, 1)])
