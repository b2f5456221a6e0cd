"""The process in which img2dataset runs: `python -m stillreel.animate.download.fetch '{"url_list": ...}'`, its arguments as JSON.

A process of its own, because img2dataset takes over signals and the screen, and sometimes hangs when all is done.
"""

import json
import sys

if __name__ == "__main__":
    import img2dataset

    img2dataset.download(**json.loads(sys.argv[1]))
