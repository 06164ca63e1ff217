# posewarper for the CPU. Build: docker build -t posewarper .    Use: see README.md.
FROM python:3.12-slim
WORKDIR /posewarper
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY src ./src
# The CPU builds of torch are a tenth of the size of the default ones.
RUN pip install --no-cache-dir -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu ".[formats]"
WORKDIR /data
ENTRYPOINT ["posewarper"]
