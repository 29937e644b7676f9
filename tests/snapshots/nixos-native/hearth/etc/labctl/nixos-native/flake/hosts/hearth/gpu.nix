# made by labctl from lab.yaml: edit that instead
{
  hardware.graphics.enable = true;

  hardware.nvidia = {
    open = true;
    nvidiaPersistenced = true;
    nvidiaSettings = false;
  };

  # this is what installs the driver, with a display or without
  services.xserver.videoDrivers = [ "nvidia" ];
}
