# stillreel with all that it can do:      docker build -t stillreel .
# On NVIDIA GPUs (torch's own CUDA):      docker build -t stillreel-cuda --build-arg TORCH=cu128 .
#   docker run --rm -v "$PWD:/work" stillreel animate cc3m clips
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" stillreel-cuda finetune msrvtt preset=clip4clip-msrvtt data=MSRVTT out=ft
# The serve page, from outside: -p 127.0.0.1:8080:8080 ... serve index host=0.0.0.0
FROM python:3.12-slim

# cpu, or a CUDA of PyTorch's wheels, as cu128. The driver is the host's.
ARG TORCH=cpu

ENV PIP_NO_CACHE_DIR=1 NO_ALBUMENTATIONS_UPDATE=1
RUN pip install --index-url https://download.pytorch.org/whl/${TORCH} torch torchvision
COPY . /source
RUN pip install '/source[build,train,serve,s3]' && rm -rf /source

WORKDIR /work
ENTRYPOINT ["stillreel"]
CMD ["--help"]
