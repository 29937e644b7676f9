# made by labctl from lab.yaml: edit that instead
{
  hardware.graphics.enable = true;

  hardware.nvidia = {
    open = true;
    nvidiaPersistenced = true;
    nvidiaSettings = false;
  };

  hardware.nvidia-container-toolkit = {
    enable = true;
    device-name-strategy = "uuid";
  };

  # this is what installs the driver, with a display or without
  services.xserver.videoDrivers = [ "nvidia" ];
}
