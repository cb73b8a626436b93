"""The two servers, and the ComfyUI that both stand in front of."""

import shutil
import sys
from pathlib import Path

from processes import Program, Several, free_port, status, wait_for

HERE = Path(__file__).parent

NGINX = """
worker_processes 2;
daemon off;
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 25m;
    location / {{
      proxy_pass http://127.0.0.1:{backend};
      proxy_read_timeout 75s;
      proxy_set_header Host $host;
    }}
  }}
}}
"""


class Machinery:
    """Where the programs are and where they may write."""

    def __init__(self, binaries, work):
        self.binaries = Path(binaries)
        self.work = Path(work)
        self.nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        (self.work / "input").mkdir()
        # Started by root, nginx's workers are somebody else, and write long answers to files in here.
        self.work.chmod(0o711)

    def log(self, name):
        return self.work / f"{name}.log"

    def comfyui(self):
        """The stand-in. Its cache holds several prompts, so that different ones can be asked for in turn."""
        port = free_port()
        command = [self.binaries / "comfyui-stand-in", "--listen", "127.0.0.1", "--port", str(port)]
        command += ["--output-directory", self.work / "output", "--temp-directory", self.work]
        command += ["--input-directory", self.work / "input", "--cache-lru", "20", "--disable-metadata"]
        command += ["--stand-in-shutdown-ms", "0"]
        program = Program(command, self.log("comfyui"))
        program.port = port
        wait_for(lambda: status(port, "/prompt") == 200, "the stand-in")
        return program

    def comfy_serve(self, comfyui, cleaning=False):
        """comfy-serve, not waited for. Cleaning, it removes what its jobs leave, as in the container, and answers
        cached prompts from memory; else it fetches every picture from ComfyUI, as the reference does."""
        port = free_port()
        command = [self.binaries / "comfy-serve", "serve", "--no-spawn", "--listen", f"127.0.0.1:{port}"]
        command += ["--comfyui-url", f"http://127.0.0.1:{comfyui.port}", "--warmup", "off"]
        if cleaning:
            command += ["--output-dir", self.work / "output", "--temp-dir", self.work]
        program = Program(command, self.log("comfy-serve"))
        program.port = port
        return program

    def reference(self, comfyui):
        """Flask in gunicorn's sync workers, two as there are two cores, behind nginx where that is installed."""
        port, backend = free_port(), free_port()
        if not self.nginx:
            backend = port
        command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--timeout", "70"]
        command += ["--bind", f"127.0.0.1:{backend}", "--log-level", "warning", "reference:app"]
        environment = {"REFERENCE_COMFYUI": f"127.0.0.1:{comfyui.port}"}
        programs = [Program(command, self.log("gunicorn"), environment, cwd=HERE)]
        if self.nginx:
            config = self.work / "nginx.conf"
            config.write_text(NGINX.format(work=self.work, port=port, backend=backend))
            programs.append(Program([self.nginx, "-p", self.work, "-c", config], self.log("nginx")))
        server = Several(programs)
        server.port = port
        return server

    def ready(self, server):
        wait_for(lambda: status(server.port, "/ping") == 200, "an answer to /ping")
        return server
