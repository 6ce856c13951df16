"""How does another program start a command of the same interpreter?"""

from app.cli import main

main()
